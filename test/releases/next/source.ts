/** What the next release's code says otherwise than this one's: it knows an export's file by the new column alone. */
export const CHANGES: readonly { readonly file: string; readonly from: string; readonly to: string }[] = [
  { file: 'src/exports/sql.ts', from: 'file_path: z.string()', to: 'file_uri: z.string()' },
  { file: 'src/exports/sql.ts', from: 'octet_length(e.file_path)', to: 'octet_length(e.file_uri)' },
  { file: 'src/exports/wire.ts', from: 'row.file_path', to: 'row.file_uri' },
];
