"""What is wrong with profiles that their files alone do not show; `check.lint` is the way in."""
