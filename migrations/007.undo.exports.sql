revoke execute on function sweeper from jeex_app;
drop function record_download, end_export, claim_export, take_export, waiting_exports, start_export, lease_export, save_export,
  begin_export_write, create_export, export_status;
