namespace GpuHandoff.Cli.Tests;

/// <summary>
/// Every recorded machine against its approved answers: <c>tests/machines/NAME/{tree,expect}</c>. To add one, copy the
/// folder and run with APPROVE=1 once; read what it wrote before it is committed.
/// </summary>
public class RecordedMachines
{
    static readonly string _folder = Path.Combine(Tool.Repository, "tests", "machines");

    static readonly (string File, string[] Arguments)[] _questions =
    [
        ("status", ["status"]),
        ("status-verbose", ["status", "--verbose"]),
        ("to_vfio", ["plan", "to_vfio"]),
        ("to_nvidia", ["plan", "to_nvidia"]),
    ];

    public static TheoryData<string, string> Cases()
    {
        var cases = new TheoryData<string, string>();
        foreach (var machine in Directory.GetDirectories(_folder).Order(StringComparer.Ordinal))
        {
            foreach (var (file, _) in _questions)
                cases.Add(Path.GetFileName(machine), file);
        }
        return cases;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_recorded_machine_gives_its_approved_answer(string machine, string question)
    {
        var arguments = _questions.Single(q => q.File == question).Arguments;
        var (exit, output, error) = Tool.Run([.. arguments, "--root", Path.Combine(_folder, machine, "tree")]);
        var answer = $"exit code {exit}\n--- stdout\n{output}--- stderr\n{error}";

        var expected = Path.Combine(_folder, machine, "expect", $"{question}.txt");
        if (Environment.GetEnvironmentVariable("APPROVE") == "1")
        {
            Directory.CreateDirectory(Path.GetDirectoryName(expected)!);
            File.WriteAllText(expected, answer);
        }
        answer.ShouldBe(File.ReadAllText(expected));
    }
}
