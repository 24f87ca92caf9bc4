"""`opsmesh redact`: what is taken out of events."""
