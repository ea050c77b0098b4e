"""Pictures for people who look rather than read: one definition, drawn as PNG and as a page."""
