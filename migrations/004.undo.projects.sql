drop function list_projects, set_project_quota, remove_member, set_member, purge_project, purge_rows, remove_rows,
  set_project_deleted, update_project, create_project;
