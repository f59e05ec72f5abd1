drop function forget_replies, purge_due, sweep, sweep_project, sweeper, end_execution, complete_execution,
  heartbeat_execution, claim_execution, take_execution, pending_executions, lease_execution, start_execution,
  save_execution, judge_lease, begin_execution_write, create_executions, judge_executions;
drop index requests_age, document_versions_body, document_versions_restored, document_versions_execution,
  executions_parent, executions_pending_oldest;
