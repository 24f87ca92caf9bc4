"""What an action does: profiles, their steps, the effect ledger and the evidence archive."""
