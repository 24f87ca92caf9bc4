"""The mesh as units of systemd: what they are called, what they run, and how they are.

`opsmesh-plan.service` decides what runs here, as `opsmesh up` does, and writes it down; each other
unit becomes the component of that plan that it is named for. Standard library only.
"""
