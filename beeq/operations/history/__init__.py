"""What has happened in a queue, minute by minute for a day and hour by hour for thirty.

``estimates`` says what nobody has counted, ``points`` makes points of a chart of Redis's entries; both are
pure. ``reading`` asks Redis.
"""
