revoke execute on function legal_transition from jeex_app, jeex_system;
drop function refuse_actor, begin_write, keep_reply, find_reply, record_change, record_changes, chain_link, scope_to,
  enter_project;
