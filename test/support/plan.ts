/** A node of `explain (format json)`. */
export interface PlanNode {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly 'Function Name'?: string;
  readonly 'Parent Relationship'?: string;
  readonly Plans?: readonly PlanNode[];
  readonly [key: string]: unknown;
}

/** Nodes that keep what they computed for the next outer row, unless what they read depends on that row. */
const KEEPS = new Set([
  'Memoize',
  'Hash',
  'Materialize',
  'Sort',
  'Incremental Sort',
  'Aggregate',
  'WindowAgg',
  'Unique',
  'CTE Scan',
]);
const CONDITIONS = [
  'Index Cond',
  'Recheck Cond',
  'Filter',
  'Hash Cond',
  'Merge Cond',
  'Join Filter',
  'One-Time Filter',
];
const SCOPE = 'scope.project_id';

const children = (node: PlanNode): readonly PlanNode[] => node.Plans ?? [];

const conditions = (node: PlanNode): string => CONDITIONS.map((name) => String(node[name] ?? '')).join(' ');

const contains = (node: PlanNode, test: (node: PlanNode) => boolean): boolean =>
  test(node) || children(node).some((child) => contains(child, test));

const entersProject = (node: PlanNode): boolean => node['Function Name'] === 'enter_project';

/**
 * What is wrong with how a plan reads tenant tables: one line for each scan that could run before the project was entered,
 * or whose rows could be kept for the next caller. Empty when every scan stands on the inner side of a nested loop that
 * enters the project, and whatever keeps rows in between depends on the scope.
 */
export const planFaults = (plan: PlanNode, tenant: ReadonlySet<string>): string[] => {
  const faults: string[] = [];
  const walk = (node: PlanNode, fenced: boolean, keeper: string | null) => {
    const table = node['Relation Name'];
    const bound = conditions(node).includes(SCOPE);
    if (table !== undefined && tenant.has(table)) {
      if (!fenced) faults.push(`${table} is scanned outside the fence (${node['Node Type']})`);
      else if (keeper !== null && !bound) faults.push(`${table} is kept by ${keeper} whoever asks`);
    }
    const relationship = node['Parent Relationship'];
    const onceForAll = relationship === 'InitPlan' ? 'InitPlan' : null;
    // Inside a nested loop's inner side, what the loop passes down ties it to its outer row.
    const [outer, inner] = node['Node Type'] === 'Nested Loop' ? children(node) : [];
    for (const child of children(node)) {
      const entered = child === inner && outer !== undefined && contains(outer, entersProject);
      const keeps = KEEPS.has(node['Node Type']) && fenced ? node['Node Type'] : null;
      const inherited = entered ? null : keeper;
      walk(child, fenced || entered, onceForAll ?? keeps ?? inherited);
    }
  };
  walk(plan, false, null);
  return faults;
};
