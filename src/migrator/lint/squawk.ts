import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';
import { devNull } from 'node:os';
import { basename, dirname } from 'node:path';
import { promisify } from 'node:util';
import type { Script } from '../files.ts';
import { BETTER_SAID, SQUAWK_RULES } from './squawk-rules.ts';
import { missingTool } from './tools.ts';

/** What squawk says about a line of a file. */
export interface SquawkFinding {
  readonly filename: string;
  /** From 1. */
  readonly line: number;
  readonly rule: string;
  readonly what: string;
  readonly advice: string;
}

/** As its JSON reporter writes it; lines are from 0. */
interface Reported {
  readonly file: string;
  readonly line: number;
  readonly line_end: number;
  readonly message: string;
  readonly help: string | null;
  readonly rule_name: string;
}

/** Its launcher is CommonJS and says no types. */
const require = createRequire(import.meta.url);

const POSTGRES = '18';
const LONGEST_MS = 60_000;
const LARGEST = 64 * 1024 * 1024;

/**
 * What squawk finds by the rules that are asked, in as few processes as there are kinds of files.
 * @throws ToolMissing in an installation without development dependencies
 */
export async function squawk(scripts: readonly Script[]): Promise<readonly SquawkFinding[]> {
  const groups = Map.groupBy(
    scripts,
    ({ filename, directives }) => `${directives.run === 'transaction'} ${dirname(filename)}`,
  );
  const found = await Promise.all([...groups.values()].map(runOne));
  return found.flat();
}

async function runOne(scripts: readonly Script[]): Promise<SquawkFinding[]> {
  const [{ filename, directives }] = scripts as readonly [Script];
  const directory = dirname(filename);
  const args = [
    // Nobody's `.squawk.toml` decides here.
    `--config=${devNull}`,
    `--pg-version=${POSTGRES}`,
    '--reporter=json',
    ...(directives.run === 'transaction' ? ['--assume-in-transaction'] : []),
    // By their names alone: it takes what it is given for a pattern.
    ...scripts.map((script) => basename(script.filename)),
  ];
  const reported = JSON.parse(await output(args, directory)) as readonly Reported[];
  return reported.filter((one) => isAsked(one) && !isBetterSaid(one, reported)).map((one) => translate(one, directory));
}

/** It ends with 1 when it has found something. */
async function output(args: readonly string[], cwd: string): Promise<string> {
  try {
    return (await promisify(execFile)(findBinary(), args, { cwd, timeout: LONGEST_MS, maxBuffer: LARGEST })).stdout;
  } catch (error) {
    const { code, stdout } = error as { code?: unknown; stdout?: string };
    if (code === 1 && stdout) return stdout;
    throw error;
  }
}

/** Its program, by the package that has it for this platform. @throws ToolMissing */
export function findBinary(): string {
  try {
    const launcher: { getBinaryPath(): string } = require('squawk-cli/js/index.js');
    return launcher.getBinaryPath();
  } catch (error) {
    return missingTool(error);
  }
}

function isAsked({ rule_name: rule }: Reported): boolean {
  const decision = Object.hasOwn(SQUAWK_RULES, rule) ? SQUAWK_RULES[rule] : undefined;
  return decision === undefined || 'asked' in decision;
}

const isBetterSaid = (one: Reported, all: readonly Reported[]): boolean =>
  all.some(
    (other) =>
      BETTER_SAID[one.rule_name]?.includes(other.rule_name) &&
      other.file === one.file &&
      other.line >= one.line &&
      other.line <= one.line_end,
  );

function translate({ file, line, rule_name: rule, message, help }: Reported, directory: string): SquawkFinding {
  const decision = SQUAWK_RULES[rule];
  const own = decision !== undefined && 'asked' in decision ? decision.advice : undefined;
  const advice = own ?? help ?? `see https://squawkhq.com/docs/${rule}`;
  return { filename: `${directory}/${file}`, line: line + 1, rule, what: message, advice };
}
