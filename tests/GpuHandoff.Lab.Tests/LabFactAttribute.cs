namespace GpuHandoff.Lab.Tests;

/// <summary>A test that needs the lab; skipped with the reason where there is none. CI accepts no such skip.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class LabFactAttribute : FactAttribute
{
    static readonly string? WhyNot = LabVm.WhyNot();

    public LabFactAttribute() => Skip = WhyNot;
}
