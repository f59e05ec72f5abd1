/** Waits until a condition holds. @throws Error that says what did not come within 20 s */
export const until = async (condition: () => boolean | Promise<boolean>, what: string): Promise<void> => {
  const end = Date.now() + 20_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};
