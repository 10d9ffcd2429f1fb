"""Files for Prometheus: its scrape configuration, and its alerts."""

from beeq_cli.commands.init.facts import AppFacts, quoted

#: The name of the file of alerts, which the configuration reads.
RULES_FILE = "beeq-rules.yml"

_CONFIGURATION = """\
# Scrapes {what}. The alerts are in {rules_file} beside it: beeq init prometheus --rules
rule_files:
  - {rules_file}
scrape_configs:
  - job_name: "{name}"
    scrape_interval: 15s
    static_configs:
      - targets: [{target}]
"""

_RULES = """\
# When {what} need somebody. Each worker reports all its queues: max by (queue) is one of them.
groups:
  - name: "{name}"
    rules:
"""

_RULE = """\
      - alert: {alert}
        expr: |-
          {expression}
        for: {lasting}
        labels:
          severity: {severity}
        annotations:
          summary: {summary}
"""

#: Name, expression, for how long, how severe, and what it says. ``JOB`` is the job's name, as a label.
_ALERTS = (
    (
        "BeeqNoWorker",
        "sum(up{job=JOB}) == 0 or absent(up{job=JOB})",
        "2m",
        "critical",
        "No worker of {{ $labels.job }} can be scraped.",
    ),
    (
        "BeeqTakesNoTurns",
        (
            "time() - beeq_worker_last_turn_timestamp_seconds{job=JOB} > 60\n"
            "          and on (instance, queue)\n"
            "          beeq_worker_slots_busy{job=JOB} < beeq_worker_slots{job=JOB}"
        ),
        "1m",
        "critical",
        "The worker {{ $labels.instance }} has free places, and takes no turn on {{ $labels.queue }}.",
    ),
    (
        "BeeqJobsWaitLong",
        (
            "max by (queue) (beeq_queue_oldest_waiting_seconds{job=JOB}) > 300\n"
            "          unless on (queue)\n"
            "          max by (queue) (beeq_queue_paused{job=JOB}) == 1"
        ),
        "5m",
        "warning",
        "The next job of {{ $labels.queue }} has waited for {{ $value | humanizeDuration }}.",
    ),
    (
        "BeeqJobsFail",
        (
            'sum by (queue) (rate(beeq_jobs_finished_total{job=JOB, outcome="failed"}[10m]))\n'
            "          / sum by (queue) (rate(beeq_jobs_finished_total{job=JOB}[10m])) > 0.05"
        ),
        "10m",
        "warning",
        "{{ $value | humanizePercentage }} of the attempts of {{ $labels.queue }} fail for good.",
    ),
    (
        "BeeqJobsStall",
        "sum by (queue) (increase(beeq_jobs_stalled_total{job=JOB}[15m])) > 0",
        "0s",
        "warning",
        "Jobs of {{ $labels.queue }} lost their worker and run again.",
    ),
    (
        "BeeqRedisFails",
        "sum by (queue) (rate(beeq_redis_errors_total{job=JOB}[5m])) > 0.1",
        "5m",
        "warning",
        "Redis refuses, or does not answer, the workers of {{ $labels.queue }}.",
    ),
    (
        "BeeqPausedLong",
        "max by (queue) (beeq_queue_paused{job=JOB}) == 1",
        "1h",
        "info",
        "{{ $labels.queue }} has been paused for an hour.",
    ),
    (
        "BeeqMirrorBehind",
        "max by (queue) (beeq_mirror_lag_jobs{job=JOB}) > 1000",
        "10m",
        "warning",
        "The status mirror is {{ $value }} changes behind on {{ $labels.queue }}.",
    ),
)


def configuration(facts: AppFacts) -> str:
    """Return the scrape configuration."""
    return _CONFIGURATION.format(
        what=facts.what,
        rules_file=RULES_FILE,
        name=facts.name,
        target=quoted(f"127.0.0.1:{facts.metrics_port}"),
    )


def rules(facts: AppFacts) -> str:
    """Return the alerting rules."""
    return _RULES.format(what=facts.what, name=facts.name) + "".join(
        _RULE.format(
            alert=alert,
            expression=expression.replace("JOB", quoted(facts.name)),
            lasting=lasting,
            severity=severity,
            summary=quoted(summary),
        )
        for alert, expression, lasting, severity, summary in _ALERTS
    )
