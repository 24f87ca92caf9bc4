"""Why a profile fired for an event, or did not: facts of the mesh put together for a person."""
