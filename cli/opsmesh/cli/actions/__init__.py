"""`opsmesh action`: what a step of a profile can do, and how somebody adds one."""
