/** @type {Record<string, string>} */
export const WORDS = {
  DATABASE_STATUS_HEALTHY: 'Healthy',
  DATABASE_STATUS_DEGRADED: 'Degraded',
  DATABASE_STATUS_UNAVAILABLE: 'Unavailable',
};

/** How the page colours a state or an alert. @type {Record<string, string>} */
export const TONES = {
  DATABASE_STATUS_HEALTHY: 'good',
  DATABASE_STATUS_DEGRADED: 'warning',
  DATABASE_STATUS_UNAVAILABLE: 'critical',
  ALERT_SEVERITY_WARNING: 'warning',
  ALERT_SEVERITY_CRITICAL: 'critical',
};
