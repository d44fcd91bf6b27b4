using GpuHandoff.Goals;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Goals;

public class Selecting
{
    [Theory]
    [InlineData("0000:02:00.0")]
    [InlineData("02:00.0")]
    [InlineData("02:00")]
    [InlineData("0000:02:00")]
    [InlineData("02:00.1")]
    [InlineData("1")]
    public void A_gpu_is_named_by_any_of_its_functions_its_slot_or_its_number(string selector) =>
        Of(selector).ShouldBeOfType<Selection.Chosen>().Gpus.ShouldHaveSingleItem().Slot().ShouldBe("0000:02:00");

    [Fact]
    public void All_means_every_nvidia_gpu() => Of("all").ShouldBeOfType<Selection.Chosen>().Gpus.Length.ShouldBe(2);

    [Fact]
    public void Of_several_gpus_none_is_guessed_and_all_are_listed()
    {
        var unclear = Of(null).ShouldBeOfType<Selection.Unclear>();
        unclear.Evidence.Length.ShouldBe(2);
        unclear.Evidence[1].ShouldContain("0000:02:00.0");
        unclear.Hint.ShouldContain("--gpu");
    }

    [Theory]
    [InlineData("2")]
    [InlineData("99")]
    [InlineData("0b:00")]
    [InlineData("first")]
    [InlineData("")]
    public void An_unknown_gpu_is_told_with_the_known_ones(string selector)
    {
        var unclear = Of(selector).ShouldBeOfType<Selection.Unclear>();
        unclear.Evidence.Length.ShouldBe(2);
        unclear.What.ShouldNotBeEmpty();
    }

    [Fact]
    public void Another_makers_card_is_never_taken_unasked()
    {
        var machine = new Desk(Hosts.AmdGpu()).Survey();
        Selection.Of(machine, null).ShouldBeOfType<Selection.Unclear>().What.ShouldContain("no NVIDIA GPU");
        Selection.Of(machine, "all").ShouldBeOfType<Selection.Unclear>();
    }

    static Selection Of(string? selector) => Selection.Of(new Desk(Hosts.TwoIdenticalGpus()).Survey(), selector);
}
