using System.Text;
using GpuHandoff.Plans;

namespace GpuHandoff.Screen;

/// <summary>A plan for a person: numbered sentences, each with its undo.</summary>
static class PlanText
{
    public static string Of(Plan plan)
    {
        var text = new StringBuilder();
        text.Append("plan: ").Append(plan.Summary).Append('\n');
        var number = 0;
        foreach (var phase in plan.Phases)
        {
            text.Append(phase.Name).Append('\n');
            foreach (var step in phase.Steps)
            {
                text.Append($"{++number,4}. ").Append(step.Say()).Append('\n');
                if (step.SayElse() is { } otherwise)
                    text.Append("      else: ").Append(otherwise).Append('\n');
                text.Append("      undo: ").Append(step.Undo()?.Say() ?? step.SayNoUndo()).Append('\n');
            }
        }
        foreach (var note in plan.Notes)
            text.Append("note: ").Append(note).Append('\n');
        return text.ToString();
    }
}
