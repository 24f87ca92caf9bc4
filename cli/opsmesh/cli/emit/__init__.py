"""`opsmesh emit`: one event. Nothing is imported here: it must start fast."""
