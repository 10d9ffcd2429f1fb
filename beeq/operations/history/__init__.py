"""What has happened in a queue, minute by minute for a day and hour by hour for thirty.

``estimates`` estimates uncounted jobs, ``points`` makes a chart's points from Redis's entries; both are pure.
``reading`` reads Redis.
"""
