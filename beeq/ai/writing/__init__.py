"""What models write: thinking before the answer, JSON with slips in it, and film scripts. No IO."""
