"""What holds a gateway, a campaign or a recipient domain back: rates, quotas, warm-ups, budgets."""
