import type { Logger } from '../log.ts';
import type { Gauge } from '../telemetry/gauge.ts';
import { type AlertRule, type Alerts, clearSeconds, clearsAt, isBeyond, SEVERITIES } from './alerts.ts';
import type { Figures, Firing, Severity } from './report.ts';

interface AlertsOptions {
  readonly rules: readonly AlertRule[];
  readonly log: Pick<Logger, 'info' | 'warn' | 'error'>;
}

/** Follows one rule; null: it does not fire. */
interface Follower {
  readonly rule: AlertRule;
  judge(value: number, time: number): Firing | null;
}

/** Judges figures in the order of their time. */
export const createAlerts = ({ rules, log }: AlertsOptions): Alerts => {
  const followers = rules.map(follow);
  const firing = new Map<AlertRule, Firing>();
  const values = new Map<string, number>();
  const list = () => [...firing.values()];

  const judge = ({ rule, judge }: Follower, figures: Figures): void => {
    const value = rule.value(figures);
    values.delete(rule.name);
    if (value === null) return;
    values.set(rule.name, value);
    const before = firing.get(rule) ?? null;
    const now = judge(value, figures.time);
    if (now) firing.set(rule, now);
    else firing.delete(rule);
    tell(log, before, now ?? before, { value, over: now === null, time: figures.time });
  };

  return {
    rules,
    values,
    get firing() {
      return list();
    },
    update: (figures) => {
      for (const follower of followers) judge(follower, figures);
      return list();
    },
  };
};

/** One threshold, and whether it counts as crossed. */
interface Level {
  readonly severity: Severity;
  readonly threshold: number;
  on: boolean;
  /** Since when the value asks for the opposite, in milliseconds since the epoch; null while it does not. */
  turning: number | null;
}

const follow = (rule: AlertRule): Follower => {
  const levels = SEVERITIES.flatMap((severity): Level[] => {
    const threshold = rule.thresholds[severity];
    return threshold === undefined ? [] : [{ severity, threshold, on: false, turning: null }];
  });
  let since = 0;
  const judge = (value: number, time: number): Firing | null => {
    const fired = levels.some(({ on }) => on);
    for (const level of levels) turn(rule, level, value, time);
    const worst = levels.find(({ on }) => on);
    if (!worst) return null;
    if (!fired) since = time;
    const { severity, threshold } = worst;
    const { name, unit, description } = rule;
    return { name, severity, threshold, value, unit, since, description };
  };
  return { rule, judge };
};

/** Turns a level on or off once the value has asked for it long enough. */
const turn = (rule: AlertRule, level: Level, value: number, time: number): void => {
  const { on, threshold } = level;
  const opposite = on ? !isBeyond(rule, clearsAt(rule, threshold), value) : isBeyond(rule, threshold, value);
  if (!opposite) {
    level.turning = null;
    return;
  }
  level.turning ??= time;
  const seconds = on ? clearSeconds(rule) : rule.forSeconds;
  if (time - level.turning < seconds * 1000) return;
  level.on = !on;
  level.turning = null;
};

interface Judged {
  readonly value: number;
  readonly over: boolean;
  readonly time: number;
}

/** Logs an alert that starts, ends, or has another severity than before, and nothing else. */
const tell = (log: AlertsOptions['log'], before: Firing | null, it: Firing | null, judged: Judged): void => {
  if (!it) return;
  const { name: alert, severity, threshold, unit, since } = it;
  const about = { alert, severity, value: judged.value, threshold, unit };
  if (judged.over) {
    log.info({ ...about, firedForSeconds: (judged.time - since) / 1000 }, 'alert over');
    return;
  }
  if (before?.severity === severity) return;
  log[severity === 'critical' ? 'error' : 'warn'](about, before ? 'alert has another severity' : 'alert fires');
};

/** As metrics: of every alert and severity whether it fires, and the values that are known. */
export const alertGauges = ({ rules, firing, values }: Alerts): readonly Gauge[] => {
  const fires = (name: string, severity: Severity) =>
    firing.some((each) => each.name === name && each.severity === severity);
  return [
    {
      name: 'jeex.alert.firing',
      description: 'Whether an alert fires with this severity: 1 or 0.',
      unit: '1',
      kind: 'gauge',
      points: rules.flatMap(({ name, thresholds }) =>
        SEVERITIES.filter((severity) => thresholds[severity] !== undefined).map((severity) => ({
          value: fires(name, severity) ? 1 : 0,
          attributes: { alert: name, severity },
        })),
      ),
    },
    {
      name: 'jeex.alert.value',
      description: "What an alert's thresholds are compared with, in the alert's unit.",
      unit: '1',
      kind: 'gauge',
      points: [...values].map(([alert, value]) => ({ value, attributes: { alert } })),
    },
  ];
};
