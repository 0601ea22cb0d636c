"""The headless core: reduction, models, likelihood and fit, without any widget library."""
