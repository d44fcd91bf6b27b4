using GpuHandoff.Lab.Vm;

namespace GpuHandoff.Bench;

/// <summary>Commands that do the same job, timed in the guest side by side: a round runs each once, so that noise meets all.</summary>
sealed record Contest(string Name, IReadOnlyList<Contestant> Contestants)
{
    /// <summary>Seconds by contestant and part, in the order of the rounds; the first round is for warming up.</summary>
    public Dictionary<(string Who, string What), List<double>> Run(LabVm vm, int rounds)
    {
        var times = new Dictionary<(string, string), List<double>>();
        for (var round = 0; round <= rounds; round++)
        {
            // By turns from the front and from the back: who comes first pays for what the one before left behind.
            foreach (var contestant in round % 2 == 0 ? Contestants : Contestants.Reverse())
            {
                foreach (var (what, command) in contestant.Parts)
                {
                    var seconds = Seconds(vm, command);
                    if (round == 0)
                        continue;
                    if (!times.TryGetValue((contestant.Name, what), out var list))
                        times[(contestant.Name, what)] = list = [];
                    list.Add(seconds);
                }
            }
        }
        return times;
    }

    // The shell's own clock, read without starting a program; the agent and its shell are left out.
    static double Seconds(LabVm vm, string command)
    {
        var result = vm.Run($"""
            cat > /run/bench.sh <<'END'
            {command}
            END
            a=$EPOCHREALTIME; bash /run/bench.sh < /dev/null > /run/bench.out 2>&1; e=$?; b=$EPOCHREALTIME
            [ $e = 0 ] || cat /run/bench.out >&2; echo $a $b; exit $e
            """).Ok().Text.Split(' ');
        return double.Parse(result[1]) - double.Parse(result[0]);
    }
}

/// <summary>One way to do it, in parts that are timed one by one.</summary>
sealed record Contestant(string Name, IReadOnlyList<(string What, string Command)> Parts);
