import { type Fault, failed, warning } from './check.ts';

/** Settings by name, as they are in force; a library that is not loaded may have none. */
type Settings = Readonly<Record<string, string>>;

export const AUTO_EXPLAIN = [
  'auto_explain.log_min_duration',
  'auto_explain.log_parameter_max_length',
  'plan_cache_mode',
];

/** Whether auto_explain can print values of the service's statements. */
export const judgePlans = (settings: Settings): readonly Fault[] => {
  const [duration = '-1', parameters = '-1', plans] = AUTO_EXPLAIN.map((name) => settings[name]);
  if (duration === '-1' || (parameters === '0' && plans === 'force_generic_plan')) return [];
  return [
    failed(
      'auto_explain prints plans with values in them',
      'alter role jeex_app set auto_explain.log_min_duration = -1, or have generic plans and no parameters, as the README has it',
    ),
  ];
};

export const STATEMENT_STATISTICS = ['pg_stat_statements.track', 'pg_stat_statements.track_utility'];

/** What pg_stat_statements, where it is loaded, counts of the service's statements. */
export const judgeStatistics = (settings: Settings): readonly Fault[] => {
  const [track, utility] = STATEMENT_STATISTICS.map((name) => settings[name]);
  return [
    ...(track === 'none'
      ? [warning('pg_stat_statements.track is none: slow statements are not counted', 'set it to top')]
      : []),
    ...(utility === 'on'
      ? [
          warning(
            'pg_stat_statements keeps the texts of utility statements, in which passwords can stand',
            'set pg_stat_statements.track_utility = off in postgresql.conf',
          ),
        ]
      : []),
  ];
};
