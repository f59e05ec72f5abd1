/** An e-mail address as it is kept: without the white space around it. */
export const trimmedEmail = (given: string): string => given.trim();

const MIN_EMAIL = 3;
const MAX_EMAIL = 255;

/** What is wrong with a kept address, in the words a caller reads; null when nothing is. Lengths count characters. */
export const emailFault = (email: string): string | null => {
  const length = [...email].length;
  return length >= MIN_EMAIL && length <= MAX_EMAIL
    ? null
    : 'must have 3 to 255 characters besides the white space around it';
};

/** The paths an update of a user may name. */
export const USER_PATHS = ['email', 'name', 'profile'] as const;
