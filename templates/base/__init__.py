"""The base templates that come with Carillon."""
