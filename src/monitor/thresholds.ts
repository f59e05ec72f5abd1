import { type AlertRule, isBeyond } from './alerts.ts';
import { RULES } from './rules.ts';

const KEYS = ['warning', 'critical', 'for'] as const;
type Key = (typeof KEYS)[number];

/** What ALERTS says of a rule: one of its figures, or that it is off. */
export type AlertSetting =
  | { readonly rule: string; readonly key: Key; readonly value: number }
  | { readonly rule: string; readonly key: 'off' };

/** What ALERTS may say. */
export const ALERTS_EXPECTED =
  `<alert>.${KEYS.join('|')}=<number> or <alert>=off, separated by commas and each once: thresholds in the alert's unit ` +
  '(a ratio is 0 to 1, critical beyond warning), for in whole seconds up to 86400; the alerts are ' +
  RULES.map(({ name }) => name).join(', ');

const MOST_SECONDS = 86_400;

/** Undefined for what is not understood, or what would make no sense. */
export const parseAlerts = (text: string): readonly AlertSetting[] | undefined => {
  const settings = text.split(',').map((each) => parseSetting(each.trim()));
  const understood = settings.filter((setting) => setting !== undefined);
  const once = new Set(understood.map(({ rule, key }) => `${rule}.${key}`)).size === settings.length;
  return once && configuredRules(understood).every(isOrdered) ? understood : undefined;
};

const parseSetting = (text: string): AlertSetting | undefined => {
  const [, name, key, value = ''] = /^(\w+)(?:\.(\w+))?=(\S+)$/.exec(text) ?? [];
  const rule = RULES.find((each) => each.name === name);
  if (!rule) return undefined;
  if (key === undefined) return value === 'off' ? { rule: rule.name, key: 'off' } : undefined;
  const known = KEYS.find((each) => each === key);
  const number = /^\d+(\.\d+)?$/.test(value) ? Number(value) : Number.NaN;
  return known && isSensible(rule, known, number) ? { rule: rule.name, key: known, value: number } : undefined;
};

const isSensible = ({ unit }: AlertRule, key: Key, value: number): boolean => {
  if (key === 'for') return Number.isInteger(value) && value <= MOST_SECONDS;
  return unit === 'ratio' ? value <= 1 : Number.isFinite(value);
};

/** A critical threshold that is crossed before the warning one would leave the latter without a meaning. */
const isOrdered = (rule: AlertRule): boolean => {
  const { warning, critical } = rule.thresholds;
  return warning === undefined || critical === undefined || !isBeyond(rule, critical, warning);
};

/** The rules that are judged, with the thresholds in force. */
export const configuredRules = (settings: readonly AlertSetting[]): readonly AlertRule[] =>
  RULES.filter(({ name }) => !settings.some(({ rule, key }) => rule === name && key === 'off')).map((rule) =>
    settings.filter((setting) => setting.rule === rule.name).reduce(withSetting, rule),
  );

const withSetting = (rule: AlertRule, setting: AlertSetting): AlertRule => {
  if (setting.key === 'off') return rule;
  return setting.key === 'for'
    ? { ...rule, forSeconds: setting.value }
    : { ...rule, thresholds: { ...rule.thresholds, [setting.key]: setting.value } };
};
