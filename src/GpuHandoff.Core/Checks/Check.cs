using GpuHandoff.Goals;
using GpuHandoff.Machines;

namespace GpuHandoff.Checks;

/// <summary>What a check looks at: the machine, one of the wanted cards, where it is to go and how.</summary>
public sealed record Question(Machine Machine, Gpu Gpu, Goal Goal, Policy Policy, FreeBy By);

/// <summary>A rule, and what to do where it is broken. Pure: it gets a value and never a file.</summary>
/// <param name="When">The direction that it stands in the way of; null: both.</param>
public sealed record Check(string Code, Target? When, string Why, Func<Question, IEnumerable<Finding>> Find);
