"""The desktop: what a person sees there, and what becomes of a button that is pressed."""
