from tests.faults.test_power_cut import test_power_cut as go
from opsmesh.router import server, spool
import os
def test_store(mounts, fault, monkeypatch):
    monkeypatch.setattr(server, "_TEMPLATE", server._TEMPLATE.replace("  sync_interval: always\n",""))
    monkeypatch.setattr(server, "check_durable", lambda b: None)
    go.__wrapped__ if False else go(None, fault, "store", 800)
def test_evidence(mounts, fault, monkeypatch):
    (fault.home/"nosync").mkdir()
    (fault.home/"nosync"/"sitecustomize.py").write_text("import os\nos.fsync=lambda f:None\nos.fdatasync=lambda f:None\n")
    monkeypatch.setenv("PYTHONPATH", str(fault.home/"nosync")+":"+os.environ.get("PYTHONPATH",""))
    go(None, fault, "spool", 800)
