"""Checks of markup: XML and HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from xml.dom.minidom import Element
from xml.parsers.expat import ExpatError

from slipway.checks.registry import Check, Graded, Subject, kind
from slipway.checks.values import answer, no_value, trimmed
from slipway.validation_errors import describe

__all__ = ["looks_like_html", "xml_parts"]

_TAG = re.compile(r"<(?P<close>/?)(?P<name>[^\W\d][\w:.-]*)(?:\"[^\"<]*\"|'[^'<]*'|[^<>\"'])*?(?P<empty>/?)>")
_HTML_NAMES = """
    a abbr address area article aside audio b base bdi bdo blockquote body br button canvas caption cite code col
    colgroup data datalist dd del details dfn dialog div dl dt em embed fieldset figcaption figure footer form h1 h2
    h3 h4 h5 h6 head header hr html i iframe img input ins kbd label legend li link main map mark math menu meta
    meter nav noscript object ol optgroup option output p param picture pre progress q rp rt ruby s samp script
    section select slot small source span strong style sub summary sup svg table tbody td template textarea tfoot th
    thead time title tr track u ul var video wbr
"""
"""promptfoo's, nearly those of the HTML standard, https://html.spec.whatwg.org/multipage/indices.html#elements-3."""
_WRAPPERS = frozenset({"html", "head", "body"})
"""Elements that the parser of browsers adds where they are not written."""
_HTML_ELEMENTS = frozenset(_HTML_NAMES.split())
_SIGNS: tuple[tuple[int, re.Pattern[str]], ...] = (
    (1, re.compile(r"<[a-z][a-z0-9-]*(?:\s[^<>]*)?>", re.IGNORECASE)),
    (1, re.compile(r"</[a-z][a-z0-9-]*\s*>", re.IGNORECASE)),
    (1, re.compile(r"<[a-z][a-z0-9-]*(?:\s[^<>]*)?/>", re.IGNORECASE)),
    (1, re.compile(r"&(?:[a-z]+|#[0-9]+|#x[0-9a-f]+);", re.IGNORECASE)),
    (2, re.compile(r"<!doctype\s+html", re.IGNORECASE)),
    (1, re.compile(r"\s[a-z-]+=\s*[\"'][^\"']*[\"']", re.IGNORECASE)),
    (
        2,
        re.compile(
            r"<(?:html|head|body|div|span|p|a|img|h[1-6]|ul|ol|li|table|tr|td|th|form|input|button|script|style|link|"
            r"meta|br|hr)\b",
            re.IGNORECASE,
        ),
    ),
)
_ENOUGH_SIGNS = 2
_NO_TAGS = (("<![CDATA[", "]]>"), ("<!--", "-->"))


def looks_like_html(text: str) -> bool:
    """Count signs of HTML; two are enough, so that ``a < b`` and ``<name>`` alone are not (promptfoo's way)."""
    signs = sum(weight for weight, pattern in _SIGNS if pattern.search(text))
    has_comment = 0 <= text.find("<!--") < text.find("-->")
    return signs + has_comment >= _ENOUGH_SIGNS


def xml_parts(text: str) -> Iterator[str]:
    """Give the outermost stretches of the text from an opening tag to its closing tag."""
    open_tags: list[tuple[str, int]] = []
    found: list[tuple[int, int]] = []
    for tag in _TAG.finditer(_blanked(text)):
        if tag["empty"]:
            found.append(tag.span())
        elif not tag["close"]:
            open_tags.append((tag["name"], tag.start()))
        elif open_tags and open_tags[-1][0] == tag["name"]:
            found.append((open_tags.pop()[1], tag.end()))
        else:
            open_tags.clear()
    end = 0
    for start, stop in sorted(found, key=lambda span: (span[0], -span[1])):
        if start >= end:
            end = stop
            yield text[start:stop]


def _blanked(text: str) -> str:
    """Blank out comments and sections of CDATA, in which there are no tags; every other character keeps its place."""
    for start, end in _NO_TAGS:
        pieces, at = [], 0
        while (begin := text.find(start, at)) >= 0 and (close := text.find(end, begin + len(start))) >= 0:
            pieces += [text[at:begin], " " * (close + len(end) - begin)]
            at = close + len(end)
        text = "".join((*pieces, text[at:]))
    return text


def _required(check: Check) -> Check:
    """Take ``{requiredElements: [a.b]}``, a list of such paths, or text with commas."""
    value = check.value
    if isinstance(value, dict) and set(value) <= {"requiredElements"}:
        value = value.get("requiredElements", [])
    elif isinstance(value, str):
        value = [path.strip() for path in value.split(",")]
    if value is not None and not (isinstance(value, list) and all(isinstance(path, str) and path for path in value)):
        raise ValueError(
            f"{check.type} takes no value, or {{requiredElements: [root.child]}}; found {describe(check.value)}"
        )
    return replace(check, value=tuple(value or ()))


@kind("is-xml", prepare=_required)
def _is_xml(check: Check, subject: Subject) -> Graded:
    return answer(check, _is_wanted(trimmed(subject.output), check), "be", _wanted(check))


@kind("contains-xml", prepare=_required)
def _contains_xml(check: Check, subject: Subject) -> Graded:
    holds = any(_is_wanted(part, check) for part in xml_parts(subject.output))
    return answer(check, holds, "contain", _wanted(check))


@kind("is-html", prepare=no_value)
def _is_html(check: Check, subject: Subject) -> Graded:
    return answer(check, _is_document(trimmed(subject.output)), "be", "HTML")


@kind("contains-html", prepare=no_value)
def _contains_html(check: Check, subject: Subject) -> Graded:
    return answer(check, looks_like_html(subject.output), "contain", "HTML")


def _wanted(check: Check) -> str:
    return "XML with " + ", ".join(_paths(check)) if _paths(check) else "XML"


def _paths(check: Check) -> tuple[str, ...]:
    return check.value if isinstance(check.value, tuple) else ()


def _is_wanted(text: str, check: Check) -> bool:
    from defusedxml import DefusedXmlException  # noqa: PLC0415  # few suites need it
    from defusedxml.expatbuilder import parseString  # noqa: PLC0415  # as above

    try:
        root = parseString(text, namespaces=False).documentElement  # a prefix is part of the name, as in promptfoo
    except (ExpatError, DefusedXmlException, ValueError, LookupError):
        return False  # entities of its own count as not well-formed: they are how XML bombs are made
    return all(_has_path(root, path.split(".")) for path in _paths(check))


def _has_path(root: Element, path: list[str]) -> bool:
    found = [root] if root.tagName == path[0] else []
    for step in path[1:]:
        children = (child for element in found for child in element.childNodes)
        found = [child for child in children if isinstance(child, Element) and child.tagName == step]
    return bool(found)


def _is_document(text: str) -> bool:
    """Whether all text stands inside elements, and one of them is of HTML; the parser of browsers accepts anything."""
    if not text or text[:5].lower() == "<?xml":
        return False
    root, written = _parsed_html(text.replace("\0", ""))
    body = root.find("body")
    if body is not None and "body" not in written:
        outside = [body.text, *(child.tail for child in body)]
        if any(part and trimmed(part) for part in outside):
            return False
    names = {element.tag.rpartition("}")[2] for element in root.iter() if isinstance(element.tag, str)}
    return any(name in written if name in _WRAPPERS else name in _HTML_ELEMENTS or "-" in name for name in names)


def _parsed_html(text: str) -> tuple[Any, set[str]]:
    """Parse as a browser does; also give the names of the elements that were not added by the parser."""
    from html5lib import HTMLParser, treebuilders  # noqa: PLC0415  # few suites need it

    written: set[str] = set()

    class Builder(treebuilders.getTreeBuilder("etree")):  # type: ignore[misc]  # made at run time
        def insertRoot(self, token: Any) -> None:  # noqa: ANN401, N802  # html5lib's
            if parser.firstStartTag:
                written.add("html")
            super().insertRoot(token)

        def insertElementNormal(self, token: Any) -> Any:  # noqa: ANN401, N802  # html5lib's
            if "selfClosingAcknowledged" in token:  # it has come from the text
                written.add(token["name"])
            return super().insertElementNormal(token)

    parser = HTMLParser(tree=Builder, namespaceHTMLElements=False)
    return parser.parse(text, scripting=True), written
