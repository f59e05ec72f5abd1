drop function list_projects, set_project_quota, remove_member, set_member, purge_project, remove_project,
  set_project_deleted, update_project, create_project;
