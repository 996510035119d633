"""A Predibase-compatible control plane and serving plane on one port of your own machine.

It speaks what the official ``predibase`` SDK speaks: repositories, adapter versions and uploads, serving deployments
and their life-cycle, and in front of the LoRAX-compatible processes that it starts, the serving addresses.
"""
