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
/** The fence's own condition, which ties whatever stands below it to the scope, whether that asks for its project or not. */
const FENCE = '(scope.project_id IS NOT NULL)';

/** Where a node stands: behind an entered project, below the fence, below a node that keeps rows. */
interface Place {
  readonly entered: boolean;
  readonly fenced: boolean;
  readonly keeper: string | null;
}

const children = (node: PlanNode): readonly PlanNode[] => node.Plans ?? [];

const conditions = (node: PlanNode): string => CONDITIONS.map((name) => String(node[name] ?? '')).join(' ');

const contains = (node: PlanNode, test: (node: PlanNode) => boolean): boolean =>
  test(node) || children(node).some((child) => contains(child, test));

const entersProject = (node: PlanNode): boolean => node['Function Name'] === 'enter_project';

/**
 * What is wrong with how a plan reads tenant tables: one line for each scan that could run before the project was entered,
 * or whose rows could be kept for the next caller. Empty when every scan stands on the inner side of a nested loop that
 * enters the project, below the fence's condition, and whatever keeps rows in between depends on the scope.
 */
export const planFaults = (plan: PlanNode, tenant: ReadonlySet<string>): string[] => {
  const faults: string[] = [];
  const walk = (node: PlanNode, place: Place) => {
    const table = node['Relation Name'];
    const bound = conditions(node).includes(SCOPE);
    const fenced = place.fenced || (place.entered && conditions(node).includes(FENCE));
    if (table !== undefined && tenant.has(table)) {
      if (!fenced) faults.push(`${table} is scanned outside the fence (${node['Node Type']})`);
      else if (place.keeper !== null && !bound) faults.push(`${table} is kept by ${place.keeper} whoever asks`);
    }
    const [outer, inner] = node['Node Type'] === 'Nested Loop' ? children(node) : [];
    for (const child of children(node)) {
      const enters = child === inner && outer !== undefined && contains(outer, entersProject);
      const keeps = KEEPS.has(node['Node Type']) && place.entered ? node['Node Type'] : null;
      // A hashed SubPlan is built once, as an InitPlan is.
      const once = /^(Init|Sub)Plan$/.test(child['Parent Relationship'] ?? '') ? 'a sub-select' : null;
      const keeper = once ?? keeps ?? (enters ? null : place.keeper);
      walk(child, { entered: place.entered || enters, fenced, keeper });
    }
  };
  walk(plan, { entered: false, fenced: false, keeper: null });
  return faults;
};
