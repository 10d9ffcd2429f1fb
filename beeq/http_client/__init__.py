"""HTTP to servers of others: webhooks' receivers, the AI provider, the media service.

Here: connections that are kept a moment (``connections``), the head of a response (``head``), header lines in
one pass (``header_lines``), the delay that a response asks for (``retry_after``), failures of this machine
itself (``local_failure``). For URLs of strangers also: the hosts that may be called (``addresses``), this
machine's own addresses (``own_addresses``), allowed ports and networks (``network_limits``), connecting to
those and no others (``guard``). Not here: what is sent, and what a response means; serving HTTP, which
``beeq.web`` does.
"""
