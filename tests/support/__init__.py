"""What the tests share: servers, Node, waiting, the audit. No tests of its own; beeq never imports it."""
