"""How it looks: rendering, MIME and SMS composition, links; the shipped base templates."""
