using System.Text;
using GpuHandoff.Formats;
using GpuHandoff.Plans;

namespace GpuHandoff.Screen;

/// <summary>A plan for a person: numbered sentences, each with its undo.</summary>
static class PlanText
{
    public static string Of(Plan plan)
    {
        var text = new StringBuilder();
        text.Append("plan: ").Append(PlainText.Line(plan.Summary)).Append('\n');
        var number = 0;
        foreach (var phase in plan.Phases)
        {
            text.Append(phase.Name).Append('\n');
            foreach (var step in phase.Steps)
            {
                text.Append($"{++number,4}. ").Append(PlainText.Line(step.Say())).Append('\n');
                if (step.SayElse() is { } otherwise)
                    text.Append("      else: ").Append(otherwise).Append('\n');
                text.Append("      undo: ").Append(PlainText.Line(step.Undo()?.Say() ?? step.SayNoUndo())).Append('\n');
            }
        }
        foreach (var note in plan.Notes)
            text.Append("note: ").Append(PlainText.Line(note)).Append('\n');
        return text.ToString();
    }
}
