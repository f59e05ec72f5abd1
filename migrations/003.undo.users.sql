revoke update on users from jeex_system;
drop function list_users, delete_user, record_login, update_user, create_user, begin_user_write, enter_user, shares_project;
