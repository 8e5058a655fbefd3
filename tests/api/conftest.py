from tests.api.services import cautious, new_settings, trusting

__all__ = ["cautious", "new_settings", "trusting"]
