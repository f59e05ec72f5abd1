/**
 * By version, the functions that its undo puts back otherwise than they were. `list_users` named the columns of before 011,
 * which had added one and so broken it; PostgreSQL makes no function whose rows lack a column, so 012's undo makes one that
 * works, as no release has it.
 */
export const PUT_BACK_OTHERWISE: Readonly<Record<number, { readonly name: string; readonly parameters: string }>> = {
  12: { name: 'list_users', parameters: 'text,uuid,integer' },
};
