using System.CommandLine;
using GpuHandoff.Goals;

namespace GpuHandoff.Commands;

static class PlanCommand
{
    public static Command Build()
    {
        var target = new Argument<Target>("TARGET")
        {
            Description = "Where the GPU would go",
            HelpName = "to_vfio|to_nvidia",
            CustomParser = HandOver.ParseTarget,
        };
        var switches = new Switches();
        var command = new Command("plan", "Print what a hand-over would do, a numbered sentence a step, with the undo of each") { target };
        switches.AddLookingTo(command);
        command.SetAction(parsed => HandOver.Look(parsed.GetRequiredValue(target), switches.Read(parsed)));
        return command;
    }
}
