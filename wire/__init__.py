"""Every record and message that crosses a wire or is kept: no clock, randomness or IO."""
