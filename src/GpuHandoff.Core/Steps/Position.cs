namespace GpuHandoff.Steps;

/// <summary>Where the machine is on a step's way.</summary>
public enum Position
{
    /// <summary>At its end: nothing to do.</summary>
    There,

    /// <summary>At its beginning or anywhere in between: it can run.</summary>
    OnTheWay,

    /// <summary>Where the plan did not expect it: the world has moved since.</summary>
    Elsewhere,
}
