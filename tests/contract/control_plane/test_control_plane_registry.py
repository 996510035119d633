"""Repositories, versions, uploads: the shapes that the official SDK accepts, and what never happens to a version."""

from __future__ import annotations

import io
import json
import zipfile

import httpx
import pytest


def test_every_route_but_the_presigned_ones_needs_the_token(shared_plane):
    for method, path in [
        ("GET", "/users/current"),
        ("GET", "/v2/repos"),
        ("POST", "/sandbox/faults"),
        ("GET", "/nope"),
    ]:
        for headers in ({}, {"Authorization": "Bearer pb_wrong"}):
            reply = httpx.request(method, shared_plane.url + path, headers=headers)
            assert reply.status_code == 401
            assert "token" in reply.json()["error"]


def test_file_routes_answer_errors_as_objects(shared_plane, talk):
    """On these two the SDK reads ``error.message`` and dies on a string."""
    path = "/v2/repos/none/version/1/download"
    assert "message" in httpx.get(shared_plane.url + path).json()["error"]
    for each in (path, "/v2/deployments/none/request-logs"):
        reply = talk.http.get(each)
        assert reply.status_code == 404
        assert "does not exist" in reply.json()["error"]["message"]


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_current_user_has_every_key_the_sdk_reads(talk, prefix):
    user = talk.http.get(f"{prefix}/users/current").json()
    assert {"id", "username", "uuid", "tenant"} <= user.keys()
    assert user["tenant"]["shortCode"] == "local"
    assert user["tenant"]["subscription"]["active"] is True


def test_repository_is_created_once_and_found_by_name_and_uuid(talk):
    body = {"name": "support bot", "description": None, "existsOk": False}
    created = talk.http.post("/v2/repos", json=body)
    assert created.status_code == 200
    assert created.json()["versions"] == []
    again = talk.http.post("/v2/repos", json=body)
    assert again.status_code == 409
    assert "already exists" in again.json()["error"]
    assert talk.http.post("/v2/repos", json={**body, "existsOk": True}).json() == created.json()
    assert talk.http.get("/v2/repos/support%20bot").json() == created.json()
    assert talk.http.get(f"/v2/repos/{created.json()['uuid']}").json() == created.json()


def test_repository_list_is_limited_to_ten_newest_first(talk):
    for number in range(12):
        talk.http.post("/v2/repos", json={"name": f"r{number}"})
    names = [repo["name"] for repo in talk.http.get("/v2/repos").json()["data"]["repos"]]
    assert names == [f"r{number}" for number in range(11, 1, -1)]
    assert len(talk.http.get("/v2/repos?limit=100").json()["data"]["repos"]) == 12


@pytest.mark.parametrize("name", ["", "a/b", ".."])
def test_repository_names_that_cannot_be_paths_are_refused(talk, name):
    reply = talk.http.post("/v2/repos", json={"name": name})
    assert reply.status_code == 400
    assert "invalid repository name" in reply.json()["error"]


def test_malformed_bodies_are_refused_with_the_key_that_is_wrong(talk):
    assert talk.http.post("/v2/repos", content=b"{").status_code == 400
    assert talk.http.post("/v2/repos", content=b"").status_code == 400
    assert "name" in talk.http.post("/v2/repos", json={}).json()["error"]
    assert "extra" in talk.http.post("/v2/repos", json={"name": "x", "extra": 1}).json()["error"]


def test_uploaded_version_is_complete_and_readable_where_it_says(talk):
    adapter = talk.upload(weights=b"w" * 100)
    version = talk.http.get(f"/v2/repos/{talk.repo}/version/1").json()
    assert adapter == f"{talk.repo}/1"
    assert version["status"] == "completed"
    assert version["baseModel"] == "slipway/tiny-llama"
    assert version["archived"] is False
    with open(f"{version['adapterPath']}/adapter_model.safetensors", "rb") as file:  # noqa: PTH123
        assert file.read() == b"w" * 100
    (entry,) = talk.http.get(f"/v2/repos/{talk.repo}").json()["versions"]
    assert entry.keys() == {"tag", "createdAt", "createdBy", "baseModel", "archived"}


def test_known_base_model_gets_its_full_id_and_an_unknown_one_is_kept(talk, shared_plane):
    for given, expected in [
        ("tiny-llama", "slipway/tiny-llama"),
        (str(shared_plane.base), "slipway/tiny-llama"),
        ("org/other", "org/other"),
    ]:
        adapter = talk.upload(config=json.dumps({"base_model_name_or_path": given}))
        repo, tag = adapter.split("/")
        assert talk.http.get(f"/v2/repos/{repo}/version/{tag}").json()["baseModel"] == expected


def test_upload_speaks_both_spellings_of_its_route(talk):
    talk.http.post("/v2/repos", json={"name": talk.repo})
    assert talk.http.post("/v2/adapters/upload/", json={"repo": talk.repo}).status_code == 200
    token = talk.start_upload(talk.repo)
    assert talk.http.put("/v2/adapters/upload", json={"uploadToken": token}).json()["tag"] == 1


def test_upload_needs_the_repository(talk):
    reply = talk.http.post("/v2/adapters/upload", json={"repo": "none"})
    assert reply.status_code == 404
    assert reply.json() == {"error": "repository 'none' does not exist"}


def test_finishing_twice_makes_one_version(talk):
    """The SDK repeats the third step after a 5xx, with the same token."""
    talk.http.post("/v2/repos", json={"name": talk.repo})
    token = talk.start_upload(talk.repo)
    assert talk.finish_upload(token).json() == talk.finish_upload(token).json()
    assert len(talk.http.get(f"/v2/repos/{talk.repo}").json()["versions"]) == 1
    assert talk.finish_upload("other").status_code == 404


def test_upload_without_config_or_weights_is_refused_and_can_be_completed(talk):
    talk.http.post("/v2/repos", json={"name": talk.repo})
    started = talk.http.post("/v2/adapters/upload", json={"repo": talk.repo}).json()

    def put(name, content):
        return httpx.put(started["presignedUrls"][name], content=content, headers=started["requiredHeaders"])

    def finish():
        return talk.finish_upload(started["uploadToken"])

    assert "adapter_config.json" in finish().json()["error"]
    put("adapter_config.json", b"{")
    assert "no weights" in finish().json()["error"]
    put("adapter_model.safetensors", b"")
    assert "no weights" in finish().json()["error"]
    put("adapter_model.safetensors", b"w")
    assert "not JSON" in finish().json()["error"]
    put("adapter_config.json", b"[]")
    assert "base_model_name_or_path" in finish().json()["error"]
    put("adapter_config.json", b'{"base_model_name_or_path": "tiny-llama"}')
    assert finish().json()["tag"] == 1, "refused attempts use up no tag"


def test_presigned_address_is_good_for_its_file_with_its_headers_until_the_upload_is_finished(talk):
    talk.http.post("/v2/repos", json={"name": talk.repo})
    started = talk.http.post("/v2/adapters/upload", json={"repo": talk.repo}).json()
    assert set(started["presignedUrls"]) == {"adapter_config.json", "adapter_model.bin", "adapter_model.safetensors"}
    url, headers = started["presignedUrls"]["adapter_config.json"], started["requiredHeaders"]
    assert httpx.put(url, content=b"x").status_code == 403
    assert httpx.put(url.replace("adapter_config.json", "other"), content=b"x", headers=headers).status_code == 403
    assert httpx.put(url.replace("expires=", "expires=1"), content=b"x", headers=headers).status_code == 403
    token = talk.start_upload(talk.repo)
    late = talk.http.post("/v2/adapters/upload", json={"repo": talk.repo}).json()
    assert talk.finish_upload(token).status_code == 200
    for name, content in {
        "adapter_config.json": b'{"base_model_name_or_path": "x"}',
        "adapter_model.bin": b"w",
    }.items():
        assert httpx.put(late["presignedUrls"][name], content=content, headers=headers).status_code == 200
    assert talk.finish_upload(late["uploadToken"]).json()["tag"] == 2
    assert httpx.put(late["presignedUrls"]["adapter_model.bin"], content=b"x", headers=headers).status_code == 409


def test_download_is_a_zip_of_the_files_at_the_top_level(talk):
    weights = bytes(range(256)) * 5000
    talk.upload(weights=weights)
    reply = talk.http.get(f"/v2/repos/{talk.repo}/version/1/download")
    assert reply.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        assert archive.namelist() == ["adapter_config.json", "adapter_model.safetensors"]
        assert archive.read("adapter_model.safetensors") == weights
    assert talk.http.get(f"/v2/repos/{talk.repo}/version/1/download").content == reply.content


def test_archived_version_stays_visible_and_can_be_brought_back(talk):
    talk.upload()
    for archived in (True, False):
        reply = talk.http.put(f"/v2/repos/{talk.repo}/version/1", json={"archived": archived})
        assert reply.status_code == 200
        assert talk.http.get(f"/v2/repos/{talk.repo}/version/1").json()["archived"] is archived
        assert talk.http.get(f"/v2/repos/{talk.repo}").json()["versions"][0]["archived"] is archived


def test_tags_are_never_given_out_again(talk):
    """LoRAX remembers what a tag resolved to; a tag with new weights would serve the old ones."""
    talk.upload("again")
    talk.upload("again")
    assert talk.http.delete("/v2/repos/again/version/2").json() == {}
    assert talk.http.get("/v2/repos/again/version/2").status_code == 404
    assert talk.upload("again") == "again/3"
    assert talk.http.delete("/v2/repos/again").json() == {}
    assert talk.http.get("/v2/repos/again").status_code == 404
    assert talk.upload("again") == "again/4"


def test_deleting_removes_the_files(talk, shared_plane):
    talk.http.post("/v2/repos", json={"name": talk.repo})
    token = talk.start_upload(talk.repo)
    talk.finish_upload(token)
    talk.upload()
    talk.start_upload(talk.repo)
    assert len(list((shared_plane.home / "adapters").iterdir())) == 3
    talk.http.delete(f"/v2/repos/{talk.repo}/version/1")
    assert len(list((shared_plane.home / "adapters").iterdir())) == 2
    assert talk.finish_upload(token).status_code == 410
    talk.http.delete(f"/v2/repos/{talk.repo}")
    assert list((shared_plane.home / "adapters").iterdir()) == []


def test_there_are_no_aliases_for_versions(talk):
    talk.upload()
    for tag in ("latest", "0", "2", "-1", "1.0", "99999999999999999999"):
        reply = talk.http.get(f"/v2/repos/{talk.repo}/version/{tag}")
        assert reply.status_code == 404
        assert "does not exist" in reply.json()["error"]


def test_unknown_routes_answer_json(talk):
    assert talk.http.get("/v2/nothing").json() == {"error": "GET /v2/nothing: Not Found"}
    assert talk.http.patch("/v2/repos/x").status_code == 405
