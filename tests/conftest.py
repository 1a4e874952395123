"""What every test shares: hypothesis without its own deadline."""

from hypothesis import settings

# A busy machine is no reason for a property to fail; pytest's timeout ends what hangs.
settings.register_profile("baton", deadline=None)
settings.load_profile("baton")
